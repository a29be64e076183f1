"""The ground: errors, seeds, files, text, progress, machine, processes. Each file stands alone.

Imports the standard library and tqdm, torch only inside the functions that need it, and of this package `version`.
"""
