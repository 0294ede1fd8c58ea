"""From documents to domains: embed, cluster, score, prune, merge, describe."""
