"""What tools/inf1_acceptance is made of: its steps, the processes they start, and the measurement inside one."""
