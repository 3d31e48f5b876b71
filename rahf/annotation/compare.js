const kind = pairKind({1: 'much_left', 2: 'left', 3: 'same', 4: 'right', 5: 'much_right'});
