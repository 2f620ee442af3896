"""What the product says about itself: a catalogue of events, each both logged and counted."""
