"""One file per service: open the links, build the stage, hand both to the lifecycle."""
