"""Networks that `neurokern demo` trains, one readable file each; every file runs by itself too."""
