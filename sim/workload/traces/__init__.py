"""Trace readers, one registered class per file: any format in, one `RequestBlock` out."""
