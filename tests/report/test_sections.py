"""Each section's numbers, against searches whose truth is known."""

from __future__ import annotations

import dataclasses
import math

import pytest

from batchscope.report import build
from batchscope.report.blocks import Facts, Figure, Row, Section, Table, Tagged, Text
from batchscope.report.sections import (
    alternatives,
    easier_targets,
    environment,
    evidence,
    hardware,
    learning_rate,
    loss_curves,
    noise_scale,
    notes,
    recipe,
    runs_table,
    search_cost,
    steps_and_examples,
    time_to_target,
)
from batchscope.store.records import Bench, Curve, Plan, PlanStatus, RunStatus

from . import plans


def said(section: Section) -> str:
    """All its prose."""
    texts = [p for block in section.blocks if isinstance(block, Text) for p in block.paragraphs]
    return " ".join(texts + [f.caption for f in figures(section)])


def figures(section: Section) -> list[Figure]:
    rows = [f for block in section.blocks if isinstance(block, Row) for f in block.figures]
    return rows + [block for block in section.blocks if isinstance(block, Figure)]


class TestRecipe:
    def test_the_lead_is_what_to_set(self) -> None:
        lead, status, *_ = recipe.build(plans.ok(), ()).blocks
        assert isinstance(lead, Text)
        assert lead.paragraphs == ("Train with batch size 128 and learning rate 0.276.",)
        assert isinstance(status, Text)
        assert (status.badge, status.paragraphs) == ("ok", (plans.ok().message,))

    def test_the_closest_approach(self) -> None:
        runs = plans.unreached_runs()
        nearest = min((r for r in runs if r.result), key=lambda r: r.result.best["val_loss"] if r.result else math.inf)
        words = recipe.closest_approach(plans.not_reached(), runs)
        assert nearest.result is not None
        assert f"was {nearest.result.best['val_loss']:.3f}" in words
        assert f"batch size {nearest.config.batch_size} " in words

    def test_without_a_recipe_the_status_comes_first(self) -> None:
        section = recipe.build(plans.not_reached(), ())
        assert section.title == "No recommendation: target not reached"
        assert isinstance(section.blocks[0], Text)
        assert section.blocks[0].badge == "target-not-reached"
        assert "No finished run has a value of val_loss" in said(section)

    def test_what_is_not_finished_says_so_in_its_title_and_what_limits_it_most_first(self) -> None:
        section = recipe.build(plans.unfinished(), ())
        lead, status, rest = section.blocks[:3]
        assert section.title == "Not finished: the best bet so far"
        assert isinstance(lead, Text)
        assert isinstance(status, Text)
        assert isinstance(rest, Text)
        assert lead.paragraphs[0].startswith("Only batch size 128 was run: ")
        assert "Best bet so far: batch size 128" in lead.paragraphs[0]
        assert status.badge == "unfinished"
        assert status.paragraphs == ("Not finished: best so far batch size 128 and learning rate 0.3.",)
        rests = "It rests on 3 runs: batch size 128 alone, learning rates 0.1 to 0.3. None reached the target."
        assert rests in rest.paragraphs
        assert "No run at exactly this recipe has reached the target: the numbers are predictions." in rest.paragraphs
        table = easier_targets.build(plans.unfinished(), ()).blocks[0]
        assert isinstance(table, Table)
        assert table.rows[0][0] == "val_loss<=0.12 (not reached yet)"

    def test_runs_that_reached_the_target_but_did_not_suffice(self) -> None:
        plan = dataclasses.replace(plans.not_reached(), status=PlanStatus.INSUFFICIENT_DATA)
        assert "1 run reached val_loss<=0.12" in said(recipe.build(plan, (plans.run(64),)))


class TestAlternatives:
    def test_the_recipe_the_current_one_and_the_rest(self) -> None:
        rows = alternatives.rows(plans.ok())
        assert [row[0] for row in rows] == [
            "recommended",
            "current",
            "fewest examples",
            "least memory",
            "largest batch at no loss of quality",
        ]
        assert rows[0][1:4] == ("437 ms (380–503)", "128", "0.276")
        assert rows[3][-1] == "16 × 8"
        assert {len(row) for row in rows} == {len(alternatives.COLUMNS)}

    def test_the_current_recipe_is_not_listed_twice(self) -> None:
        assert [row[0] for row in alternatives.rows(plans.keep_current())] == ["recommended"]

    def test_what_was_not_predicted(self) -> None:
        row = alternatives.row("current", plans.recipe(), None)
        assert row[1] == "not predicted"
        assert len(row) == len(alternatives.COLUMNS)


class TestTimeToTarget:
    def test_runs_are_sorted_by_how_they_ended(self) -> None:
        data = time_to_target.collect(plans.ok(), plans.runs())
        assert sorted(t.outcome.batch_size for t in data.best) == [16, 32, 64, 128, 512]
        assert len(data.others) == 4
        assert {t.outcome.status for t in data.censored} == {RunStatus.BEHIND}
        assert data.diverged == 1
        assert (data.recipe, data.current) == (128, 16)

    def test_time_is_steps_times_step_time(self) -> None:
        data = time_to_target.collect(plans.ok(), (plans.run(128),))
        steps = data.best[0].outcome.steps
        assert data.best[0].seconds == pytest.approx(steps * plans.step_time_at(128) * 1.02)

    def test_the_flat_part_surrounds_the_minimum(self) -> None:
        curve = Curve(batch_size=(1, 2, 4, 8, 16), value=(1.04, 2.0, 1.03, 1.0, 1.06), low=(1,) * 5, high=(2,) * 5)
        assert time_to_target.flat_part(curve) == (4, 8)

    def test_the_caption_says_what_the_numbers_say(self) -> None:
        caption = time_to_target.conclude(time_to_target.collect(plans.ok(), plans.runs()))
        assert "from 64 to 128 is within 5 % of the lowest fitted time, 429 ms at 64" in caption
        assert "9 runs reached the target, 3 did not" in caption
        assert "1 run diverged and is not drawn" in caption

    def test_nobody_reached_it(self) -> None:
        section = time_to_target.build(plans.not_reached(), plans.unreached_runs())
        assert "No run reached the target" in said(section)

    def test_no_step_time_no_figure(self) -> None:
        plan = dataclasses.replace(plans.not_reached(), bench=None)
        section = time_to_target.build(plan, plans.unreached_runs())
        assert not figures(section)
        assert "steps cannot be turned into time" in said(section)


class TestStepsAndExamples:
    def test_points_curves_and_critical_batch_size(self) -> None:
        data = steps_and_examples.collect(plans.ok(), plans.runs())
        assert [o.batch_size for o in data.best] == [16, 32, 64, 128, 512]
        assert not data.censored
        assert data.critical.value == plans.CRITICAL
        assert data.at_critical == pytest.approx(2 ** (1 / plans.EXPONENT))
        assert data.steps_ratio == pytest.approx(plans.steps_at(128) / plans.steps_at(1024), rel=1e-6)

    def test_sizes_without_success_show_their_longest_run(self) -> None:
        data = steps_and_examples.collect(plans.not_reached(), plans.unreached_runs())
        assert [o.batch_size for o in data.censored] == [32, 128, 512]
        assert RunStatus.DIVERGED not in {o.status for o in data.censored}

    def test_an_unknown_critical_batch_size_is_said(self) -> None:
        section = steps_and_examples.build(plans.not_reached(), plans.unreached_runs())
        assert "critical batch size could not be fitted" in said(section)
        assert not any(key.label == "critical batch size" for f in figures(section) for key in f.keys)


class TestLearningRate:
    def test_runs_are_classed_by_their_distance_from_the_best(self) -> None:
        runs = (plans.run(128, 1.0), plans.run(128, 0.5), plans.run(128, 8.0, status=RunStatus.DIVERGED))
        data = learning_rate.collect(plans.ok(), runs)
        assert [len(c) for c in data.classes] == [1, 0, 1, 0]
        assert data.classes[0][0].ratio == 1.0
        assert len(data.diverged) == 1

    def test_the_exponent_is_the_slope_of_the_line(self) -> None:
        curve = Curve(batch_size=(4, 16, 64), value=(0.1, 0.2, 0.4), low=(0.1,) * 3, high=(0.5,) * 3)
        assert learning_rate.exponent(curve) == pytest.approx(0.5)
        assert learning_rate.exponent(dataclasses.replace(curve, batch_size=(4,), value=(0.1,))) is None

    def test_without_a_fit_the_caption_counts(self) -> None:
        plan = dataclasses.replace(plans.ok(), curves=None)
        assert "1 run reached the target; no rule" in said(learning_rate.build(plan, (plans.run(128),)))


class TestHardware:
    def bench(self) -> Bench:
        return plans.bench()

    def test_three_figures_with_knee_and_limit(self) -> None:
        section = hardware.build(plans.ok(), ())
        assert [f.name for f in figures(section)] == ["step-time", "throughput", "memory"]
        assert "limit 64 MiB" in [key.label for key in figures(section)[2].keys]
        assert "at the knee, 75 (68.2–82.5) examples" in said(section)

    def test_a_limit_far_above_is_said_and_not_drawn(self) -> None:
        bench = dataclasses.replace(self.bench(), limit_bytes=100 * 1024**3)
        section = hardware.build(dataclasses.replace(plans.ok(), bench=bench), ())
        assert "of 100 GiB" in said(section)
        assert not any("limit" in key.label for key in figures(section)[2].keys)

    def test_one_reading(self) -> None:
        profile = dataclasses.replace(self.bench().profile, step_time_s=((8, 0.001),), peak_memory_bytes=())
        bench = dataclasses.replace(self.bench(), profile=profile)
        section = hardware.build(dataclasses.replace(plans.ok(), bench=bench), ())
        assert "one reading cannot tell its fixed cost" in said(section)
        assert "Peak memory was not measured" in said(section)
        assert len(figures(section)) == 2

    def test_an_empty_bench_is_words(self) -> None:
        profile = dataclasses.replace(self.bench().profile, step_time_s=(), peak_memory_bytes=())
        bench = dataclasses.replace(self.bench(), profile=profile)
        section = hardware.build(dataclasses.replace(plans.ok(), bench=bench), ())
        assert not figures(section)
        assert "No step time was measured." in said(section)


class TestLossCurves:
    def test_a_long_run_is_thinned_and_keeps_its_ends(self) -> None:
        run = plans.run(8, evaluations=900)
        course = loss_curves.course(run, "val_loss")
        rows = [row for row in run.rows if row["step"] > 0]
        assert len(course.steps) == loss_curves.MOST_POINTS < len(rows)
        assert (course.steps[0], course.steps[-1]) == (rows[0]["step"], rows[-1]["step"])
        assert course.examples == tuple(8 * s for s in course.steps)

    def test_switches_for_both_axes(self) -> None:
        (figure,) = figures(loss_curves.build(plans.ok(), plans.runs()))
        across, up = figure.switches
        assert [o.label for o in across.options] == ["steps", "examples", "seconds"]
        assert [o.label for o in up.options] == ["val_loss", "training loss"]
        assert up.options[0].layout["shapes"]
        assert up.options[1].layout["shapes"][0]["opacity"] == 0, "the target is no value of the training loss"

    def test_the_fastest_in_steps_and_in_examples(self) -> None:
        data = loss_curves.collect(plans.ok(), plans.runs())
        assert data.fewest_steps is not None
        assert data.fewest_examples is not None
        assert (data.fewest_steps.batch_size, data.fewest_examples.batch_size) == (512, 32)
        assert data.endings == {RunStatus.REACHED: 9, RunStatus.BEHIND: 3, RunStatus.DIVERGED: 1}

    def test_a_run_that_blows_up_does_not_flatten_the_others(self) -> None:
        (figure,) = figures(loss_curves.build(plans.ok(), plans.runs()))
        low, high = figure.layout["yaxis"]["range"]
        assert 10**low < plans.TARGET.value
        assert 10**high < 10

    def test_paused_runs_are_counted_and_the_milestone_is_a_line_of_its_own(self) -> None:
        first = plans.run(128)
        milestone = 0.12 * (first.rows[0]["metrics"]["val_loss"] / 0.12) ** 0.3
        runs = (first, plans.paused(plans.run(32), milestone), plans.paused(plans.run(512), milestone))
        data = loss_curves.collect(plans.ok(), runs)
        assert data.milestone == pytest.approx(milestone)
        assert data.endings == {RunStatus.REACHED: 1, RunStatus.PAUSED: 2}
        (figure,) = figures(loss_curves.build(plans.ok(), runs))
        assert figure.caption.startswith("2 runs paused and 1 run reached the target.")
        assert [key.label for key in figure.keys][-1] == f"milestone {milestone:.3g}, where runs were paused"
        target, line = figure.layout["shapes"]
        assert (target["y0"], target["line"]["dash"]) == (0.12, "dash")
        assert (line["y0"], line["line"]["dash"]) == (data.milestone, "dot")
        assert sum(": paused" in trace["name"] for trace in figure.data) == 2

    def test_no_milestone_where_no_run_ended_at_it(self) -> None:
        assert loss_curves.collect(plans.ok(), plans.runs()).milestone is None
        elsewhere = (plans.run(128), plans.paused(plans.run(32), 0.6), plans.paused(plans.run(64), 0.15))
        assert loss_curves.collect(plans.ok(), elsewhere).milestone is None

    def test_accuracies_have_a_linear_axis(self) -> None:
        target = dataclasses.replace(plans.TARGET, metric="val_accuracy", value=0.97, mode="max")
        plan = dataclasses.replace(plans.ok(), target=target)
        (figure,) = figures(loss_curves.build(plan, (plans.run(512, target=target),)))
        assert figure.layout["yaxis"]["type"] in ("linear", "log")
        assert figure.switches[1].options[0].label == "val_accuracy"


class TestNoiseScale:
    @staticmethod
    def rows(scale: float, square: float = 2.0, n: int = 40) -> list[dict[str, float]]:
        groups, size = 4, 16
        trace = scale * square
        row = {"mean_square_norm": square + trace / size, "square_norm_of_mean": square + trace / (groups * size)}
        return [
            {"kind": "noise", "step": s, "examples": 64 * s, "groups": groups, "group_size": size, **row}
            for s in range(n)
        ]

    def test_blocks_recover_the_truth(self) -> None:
        run = dataclasses.replace(plans.run(64), rows=tuple(self.rows(50.0)))
        plan = dataclasses.replace(plans.ok(), examples_in_training_set=10**9)
        (trail,) = noise_scale.collect(plan, (run,)).trails
        assert len(trail.blocks) == noise_scale.BLOCKS
        assert [b.value for b in trail.blocks] == pytest.approx([50.0] * len(trail.blocks))
        assert sum(b.n for b in trail.blocks) == 40

    def test_a_block_whose_gradient_drowned_is_open(self) -> None:
        rows = [{**row, "square_norm_of_mean": row["mean_square_norm"] / 8} for row in self.rows(50.0)]
        run = dataclasses.replace(plans.run(64), rows=tuple(rows))
        (trail,) = noise_scale.collect(plans.ok(), (run,)).trails
        assert {b.value for b in trail.blocks} == {None}
        assert "larger than could be measured" in said(noise_scale.build(plans.ok(), (run,)))

    def test_too_few_readings_are_said(self) -> None:
        run = dataclasses.replace(plans.run(64), rows=tuple(self.rows(50.0, n=3)))
        assert "fewer than 4 readings" in said(noise_scale.build(plans.ok(), (run,)))
        assert "was not measured" in said(noise_scale.build(plans.ok(), (plans.run(64),)))

    def test_the_caption_compares_with_the_recipe(self) -> None:
        run = dataclasses.replace(plans.run(64), rows=tuple(self.rows(5000.0)))
        assert "is below it throughout" in said(noise_scale.build(plans.ok(), (run,)))


class TestEasierTargets:
    def test_one_row_a_target_the_hardest_first(self) -> None:
        section = easier_targets.build(plans.several_targets(), ())
        (table, _) = section.blocks
        assert isinstance(table, Table)
        assert [row[:2] for row in table.rows] == [
            ("val_loss<=0.12", "128"),
            ("val_loss<=0.5", "64"),
            ("val_loss<=1", "not reached"),
        ]
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert table.emphasised == 0
        assert "Batch size 128 is best for the hardest, 64 for the others." in said(section)

    def test_left_out_where_there_is_one_target(self) -> None:
        assert easier_targets.build(plans.ok(), ()).blocks == ()
        assert "Easier targets" not in build(plans.ok(), plans.runs())
        assert "Easier targets" in build(plans.several_targets(), plans.runs())


class TestWithinALength:
    """Nothing on the page speaks of a time to a target that nobody gave."""

    def test_the_page(self) -> None:
        page = build(plans.within(), plans.runs())
        assert "The recipe with the best val_loss within" in page
        assert "<b>20 epochs</b>" in page
        assert "<h2>Where the runs ended</h2>" in page
        for absent in ("Time to", "No run reached the target", "Steps and examples", "to target", "val_loss&lt;=0.12"):
            assert absent not in page
        assert "<h2>Alternatives</h2>" not in page
        assert "The probability that" not in page

    def test_the_facts(self) -> None:
        (facts,) = (b for b in recipe.build(plans.within(), ()).blocks if isinstance(b, Facts))
        names = [name for name, _ in facts.pairs]
        assert "time" in names
        assert not [name for name in names if "target" in name]
        assert ("length", "224 steps (20 epochs)") in facts.pairs

    def test_no_saving_is_claimed_against_trainings_of_the_same_length(self) -> None:
        assert search_cost.pays_after(plans.within()) == ""


class TestTheRest:
    def test_every_run_has_a_line(self) -> None:
        section = runs_table.build(plans.ok(), plans.runs())
        table, legend = section.blocks
        assert isinstance(table, Table)
        assert section.folded
        assert {len(row) for row in table.rows} == {len(table.columns)}
        assert len(table.rows) == len(plans.runs())
        assert isinstance(legend, Facts)
        assert [word for word, _ in legend.pairs] == ["pilot", "probe", "current", "fell behind", "diverged"]

    def test_evidence_is_ordered_by_strength(self) -> None:
        section = evidence.build(dataclasses.replace(plans.ok(), evidence=plans.EVIDENCE[::-1]), ())
        (tagged,) = (b for b in section.blocks if isinstance(b, Tagged))
        assert [tag for _, tag, _ in tagged.items] == ["measured", "measured", "fitted", "literature", "assumption"]

    def test_the_search_pays_for_itself(self) -> None:
        saved = plans.predicted(16, 1.8).time_to_target_s.value or 0.0
        saved -= plans.predicted(128).time_to_target_s.value or 0.0
        assert f"after {math.ceil(5.9 / saved)} runs" in said(search_cost.build(plans.ok(), ()))
        assert search_cost.pays_after(plans.keep_current()) == ""

    def test_another_machine_is_named(self) -> None:
        bench = dataclasses.replace(plans.bench(), profile=dataclasses.replace(plans.bench().profile, name="H200"))
        (facts,) = environment.build(dataclasses.replace(plans.ok(), bench=bench), ()).blocks
        assert isinstance(facts, Facts)
        assert ("answer is for", "H200") in facts.pairs

    def test_notes_follow_the_status(self) -> None:
        plan: Plan = dataclasses.replace(plans.ok(), status=PlanStatus.EXTRAPOLATED, verified=None)
        words = said(notes.build(plan, ()))
        assert "outside those that were trained" in words
        assert "The recipe itself was not run to the target." in words
