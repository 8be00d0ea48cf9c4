"""The interview coach: scenarios as data, their numbers computed, answers scored offline with quoted evidence.

`scenario` reads the scenarios, `numbers` computes what may appear in an answer. Nothing here imports torch.
"""
