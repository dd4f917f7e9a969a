"""What is learnt from labelled products, apart from looking at neighbours."""
