"""Files with one row per person: from codes and weights to the shares of groups.

`files` reads them, `draft` proposes a map from variables to questions, which people edit, `mapping`
reads the map, `tally` counts, and `content` puts a survey together.
"""
