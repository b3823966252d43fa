"""Files of ``torch.save``, read without running code from them."""
