"""Whether the objectives are kept: how much would be lost now, and how long a restore would take.

`judging` and `schedules` decide and `telling` says who hears of it; all three are pure.
`gathering` reads what they decide on.
"""
