"""`tinymu quickstart`: test, train, fine-tune and export a small model, offline."""
