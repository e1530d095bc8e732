"""Hardware: a machine's device, memory and step times, measured on any step that is handed in.

From here: `hardware.device` (the seam to torch's back ends), `hardware.bench`, `hardware.profile`,
`hardware.environment`, `hardware.random_state`, and the protocol of what a bench measures, `hardware.step`.
"""
