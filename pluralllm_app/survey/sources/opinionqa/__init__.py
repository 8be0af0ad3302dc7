"""OpinionQA (Santurkar et al. 2023, arXiv 2303.17548): a panel of Americans by demographic group.

Two layouts are read: `tables` that of the official repository, tatsu-lab/opinions_qa, and `records`
that of a list of JSON records, in which others share parts of the survey. `content` puts what was
read together.
"""
