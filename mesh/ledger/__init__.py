"""The ledger: an outside checker of what a mesh and its functions promise.

`report` is what functions and publishers use to say what they do, `recorder` the process that
keeps it in a file of its own, `readback` reads outputs and dead letters from the mesh when all is
over, and `judge` says which of I1 to I10 was broken. `python -m mesh.ledger FILE` judges a file.
Kept light on purpose: functions import `mesh.ledger.report`, and so run this file.
"""
