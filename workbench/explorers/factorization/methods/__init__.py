"""Methods that factorise a matrix, one file each."""
