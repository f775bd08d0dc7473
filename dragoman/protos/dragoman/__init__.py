"""Messages of package dragoman."""
