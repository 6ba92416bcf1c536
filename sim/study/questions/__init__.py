"""The studies, one file each: a question that takes many runs to answer."""
