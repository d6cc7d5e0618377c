"""Networks beside which pgti's are timed: the same functions, computed as the released codes do."""
