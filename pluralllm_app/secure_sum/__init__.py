"""Sums over groups of which nobody sees a part: secure summation.

The protocol of Bonawitz et al., CCS 2017 (IACR ePrint 2017/281, announced in arXiv 1611.04482),
against an active server; `group` and `server` name its rounds and sets. This room knows no learner
and, but for `shares`, no Flower: both halves turn messages into messages, and somebody else carries
them.

A run has a cohort of groups. A setup of two exchanges makes keys for several sums at once; each
sum then takes one exchange in which groups send masked vectors, one in which they open the sum and,
if a group was lost between the setup and the masked vectors, one before it in which they agree on
who is left.
"""
