"""Dynamics of instruction tuning: the library that the scripts share.

Source of the study: "Dynamics of Instruction Tuning: Each Ability of Large Language Models Has Its
Own Growth Pace" (arXiv 2310.19651). The library never imports a script.
"""
