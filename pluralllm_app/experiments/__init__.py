"""Many runs side by side: methods, comparisons and their tables."""
