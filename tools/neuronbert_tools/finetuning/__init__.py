"""What tools/finetune.py is made of, from the options to the checkpoint; task.py: what differs between tasks."""
