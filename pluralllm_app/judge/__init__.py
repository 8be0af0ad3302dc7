"""How well a language model answers as each group does: what it is asked, and how it is scored."""
