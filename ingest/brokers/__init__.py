"""The brokers that devices speak to: what each of them needs from us."""
