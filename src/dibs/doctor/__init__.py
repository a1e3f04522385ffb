"""`dibs doctor`: what is wrong with what dibs runs on, and how to mend it.

scene       all that is known, gathered once: what the broker stands on, queues, workers, jobs
finding     one thing that is wrong
diagnosis   all checks; each is a function from the scene to findings, in the file of its subject
"""
