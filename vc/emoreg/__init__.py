"""EmoReg as published (arXiv 2412.20359): the yardstick that the shipped converter is measured against."""
