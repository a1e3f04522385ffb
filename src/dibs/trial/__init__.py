"""What `dibs demo` and `dibs chaos` share: processes to be killed, what those leave behind, and how it is shown."""
