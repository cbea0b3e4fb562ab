"""Emotional voice conversion (EmoReg): give a recording an emotion and an intensity."""
