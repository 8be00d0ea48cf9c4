"""The interview coach: scenarios as data, their numbers computed, answers scored offline with quoted evidence.

`scenario` reads the scenarios, `lexicon` the words by which points are known, `numbers` computes what may appear in an
answer. Nothing here imports torch.
"""
