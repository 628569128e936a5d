"""What a probe asks, how it reads what comes back, and how it judges that."""
