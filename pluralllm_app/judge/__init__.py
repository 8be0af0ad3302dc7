"""How well a language model answers as each group does: what it is asked, and how it is scored."""

PERSONAS = ("both", "without", "with")  # whether it is told as whom to answer
