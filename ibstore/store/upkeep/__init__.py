"""Looking after stores: verify and repair, copy, merge and remove."""
