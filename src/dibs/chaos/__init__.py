"""`dibs chaos`: processes killed at random on a broker of the user's, and the account of what became of every job."""
