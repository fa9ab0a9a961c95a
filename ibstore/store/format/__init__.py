"""Store format 1: names, records, arrays and the bytes of their shards; pure, without any I/O."""
