"""What tools/finetune_qa.py is made of, from the options to the checkpoint that is written."""
