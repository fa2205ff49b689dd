"""`rmpc run`: starts a plant's nodes as processes, keeps them alive, ends them, and reports."""
