"""Which run comes next: strategies over plain numbers, one file each."""
