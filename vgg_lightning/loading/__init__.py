"""What is in a checkpoint of this project: its options, checked, and its weights; also as safetensors.

Imports `training`, `data`, `run.checkpoints` and `base`. The class of the model is an argument here,
since `classifier` imports this room.
"""
