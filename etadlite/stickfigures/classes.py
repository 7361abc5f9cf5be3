"""The eight classes and the frame rate of the generated videos; settings need nothing else."""

FPS = 15  # frames per second of every generated video
CLASSES = ("throw", "catch", "kick", "stomp", "jump", "squat", "spin", "unwind")
IDLE = len(CLASSES)  # the label of a studio clip in which no action takes place
