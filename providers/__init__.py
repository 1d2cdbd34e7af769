"""What can be bought, and buying it: the purchase port, its errors, the catalogue, and one folder per cloud."""
