"""What ``doctor`` looks at, a module for each place it looks in; all of it only reads."""
