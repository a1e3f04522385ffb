"""`dibs demo`: the main job on real processes, told by what the jobs themselves wrote down."""
