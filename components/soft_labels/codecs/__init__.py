"""What of a teacher's distribution is stored, and how it is read again."""
