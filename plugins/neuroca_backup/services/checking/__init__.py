"""Reading stored backups back, again and again for as long as they are kept.

`planning` decides which copy is read in this run and how deep, and touches nothing; `survey` reads
what it decides about; `running` carries that out, and says what has fallen.
"""
