"""What protocols that are no task's own ask for, whoever answers it: the words of a task's OFFERS (tasks/base.py)."""

EMBEDDINGS = "embeddings"  # a vector for each text: its results have "embedding"
LABELS = "labels"  # labels with scores for each text or pair
RANKING = "ranking"  # texts by how well they fit a query: takes {"query", "texts"}, gives a list of {"index", "score"}
