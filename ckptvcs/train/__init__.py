"""Training loops as a face of ckptvcs. It decides nothing; like `cli`, it calls porcelain."""
