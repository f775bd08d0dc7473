"""One module per HTTP filter, under the name of its concern in compile; the ordered list of them is here."""
