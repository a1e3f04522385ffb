"""The `dibs` command. Nobody imports it but the command itself."""
