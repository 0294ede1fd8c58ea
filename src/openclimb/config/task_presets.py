"""Which tasks a preset optimises and which it only reports: `tasks.preset`."""

# The paper's twelve, by the names that `climb tasks paper` gives their files. The search sees the first three
# (arXiv 2504.13161: proxies are judged by PIQA, ARC-Easy and HellaSwag); the rest is in its tables alone.
PAPER_SEARCHED = ("piqa", "arc_easy", "hellaswag")
PAPER_REPORTED = (
    *("arc_challenge", "winogrande", "socialiqa", "mmlu", "openbookqa", "boolq", "race", "lambada", "truthfulqa"),
)
REPORTED = {"": (), "paper": PAPER_REPORTED}
